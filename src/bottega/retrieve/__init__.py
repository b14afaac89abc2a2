"""Finding passages: exact-offset chunks of documents and BM25 over them (docs/retrieve.md)."""
