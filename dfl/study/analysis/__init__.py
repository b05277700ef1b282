"""From scores to what a study found: metrics, effects, rankings, a close look."""
