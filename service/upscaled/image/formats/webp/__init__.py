"""Read WebP files (RFC 9649): structure, damage, and the headers of VP8 frames."""
