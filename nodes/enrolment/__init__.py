"""The authority of a pipeline: whom it lets in, with which certificate, and until when. Needs `cryptography`."""
