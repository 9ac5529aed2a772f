"""Real servers for tests, each started on loopback for one test session and ended with it."""
