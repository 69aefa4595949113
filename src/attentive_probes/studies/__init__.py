"""Many runs as one study: its runs, rows, tables, pictures, and leaderboards."""
