"""What poolings and heads are made of; `attend` first."""
