"""Running the system with Docker Compose: what `just init`, `just up` and their like do."""
