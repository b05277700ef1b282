"""Print the lower bounds of pyproject.toml as constraints of pip."""

import re
import tomllib
from pathlib import Path

project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
extras = project["optional-dependencies"]
for requirement in [
    *project["dependencies"],
    *(line for extra in extras for line in extras[extra]),
]:
    if not requirement.startswith(f"{project['name']}["):  # an extra of its own extras
        name, bound = re.fullmatch(r"([\w.-]+)(?:\[\w+\])?[>=]=([\w.]+)", requirement).groups()
        print(f"{name}=={bound}")
