"""One namespace: S3 and files interleave random operations on one bucket, and every face shows the same tree after each."""
