"""Support for the tasks: kills, rendered fields, outlets, lineage, finished generations."""
