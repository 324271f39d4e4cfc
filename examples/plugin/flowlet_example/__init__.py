"""A provider and a step for flowlet."""
