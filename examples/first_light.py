"""First Light: a physics-informed network follows a car, and every tick of it is on film.

    python examples/first_light.py --mode both --db first_light.db
    python examples/first_light.py --inject drift

The program is `rubriscope.demos.first_light`, so that `rubriscope demo first-light` runs it from an installed
package; what it does, its equations and its figures are in docs/first_light.md. Where to begin reading:
`twin.py` has the three sight points, `network.py` the network, `summary.py` what is read back from the film.
The exit code is 0 when every limit was kept, 1 when one was not.
"""

import sys

from rubriscope.demos.first_light.options import main

if __name__ == "__main__":
    sys.exit(main())
