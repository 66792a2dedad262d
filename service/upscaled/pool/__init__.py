"""The process boundary: image bytes in, image bytes and facts out."""
