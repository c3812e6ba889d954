"""A Ray that is joined or started, what it has room for, and the workers of Ray Train."""
