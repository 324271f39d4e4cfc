"""flowlet: LLM workflows made of plain functions."""
