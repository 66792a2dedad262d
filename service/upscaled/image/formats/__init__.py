"""Image formats: one file or package each, and the table by which they are recognised."""
