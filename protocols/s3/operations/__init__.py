"""One S3 operation per file; each is `run(context, request)` and returns its answer, or None when it has sent it itself."""
