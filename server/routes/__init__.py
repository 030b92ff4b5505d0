"""Admin REST, one noun a file. Each turns a request into calls of the store or of the accounts; none keeps state."""
