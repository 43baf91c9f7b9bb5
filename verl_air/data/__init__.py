"""The rows that verl trains on: schema, framings, and one builder a domain."""
