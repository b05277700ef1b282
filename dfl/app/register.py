"""Import this where a command takes images.

Classes then have short names, as in ``--data.source Pairs``, and the help lists them.
"""

import dfl.data

for _name in dir(dfl.data):
    getattr(dfl.data, _name)  # imports the module that defines it
