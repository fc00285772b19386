"""The model store: versions by content, aliases by numbered records; in a folder or a bucket. docs/store.md."""
