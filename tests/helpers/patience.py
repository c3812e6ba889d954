"""How much longer than usual tests may take: TEST_PATIENCE=4 on a machine that does other work beside them."""

import os

PATIENCE = float(os.environ.get("TEST_PATIENCE", "1"))
