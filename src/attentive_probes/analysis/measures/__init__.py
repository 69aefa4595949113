"""Numbers behind the pictures: statistics of attention, of queries, and of where things are placed."""
