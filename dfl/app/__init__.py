"""How commands are run: the parser, Lightning CLI, prediction, and what is shown of it."""
