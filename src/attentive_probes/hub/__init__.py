"""Model cards, and heads that others have published."""
