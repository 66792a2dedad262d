"""WebP files (RFC 9649): their structure, their damage, and the headers of VP8 in them."""
