"""The OpenAI-compatible endpoint. It is handed a fleet of models (``infer/live.py``) and names no engine."""
