"""Model versions on disk and on S3: manifest, checksums, files."""
