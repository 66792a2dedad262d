"""The picture formats: one file or package each, and how they are recognised."""
