"""What the world calls: webhooks, the REST API, runners and the dashboard; the only room with async code."""
