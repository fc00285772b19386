"""Waits until fresh grants are known to all of Google: "typically 2 minutes, potentially 7 minutes or longer".

Source: "Access change propagation" in the documentation of Google's IAM. No one but the account itself could ask
whether it may, so time it is. Where this was too short, the error names the role that is lacking: docs/deploy.md.
"""

import time

time.sleep(120)
