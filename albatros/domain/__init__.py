"""Pure values: states and their legal moves, references, platforms, plans, retention. Imports no framework."""
