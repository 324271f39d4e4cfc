"""The engine: the only place that makes tasks and threads. Others ask it."""
