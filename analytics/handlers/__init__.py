"""The boundary in: records of clicks, and questions about their counts."""
