"""Asks the installed ricloud client what it thinks of deliveries.

Reads one JSON object a line: {secret, header, body, event}. Prints for each a JSON object: `verifier`, what its verifier
says; `receiver`, the HTTP status of its own receiver; `signed`, a header that it signs this body with itself.
"""

import contextlib
import io
import json
import sys

from ricloud.signing import Signature
from ricloud.webhooks import app

DELTA = 600


def verifier(case):
    try:
        Signature.from_header(case["header"]).verify(case["body"], case["secret"], delta=DELTA)
    except Signature.InvalidSignatureHeader:
        return "malformed"
    except Signature.InvalidSignature:
        return "mismatch"
    except Signature.InvalidSignatureTimestamp:
        return "stale"
    return "valid"


def receiver(case):
    app.config.update(WEBHOOK_SECRET=case["secret"], WEBHOOK_DELTA=DELTA)
    # It prints each event.
    with contextlib.redirect_stdout(io.StringIO()):
        answer = app.test_client().post(
            "/webhooks/" + case["event"],
            data=case["body"].encode(),
            content_type="application/json",
            headers={"Ricloud-Signature": case["header"]},
        )
    return answer.status_code


for line in sys.stdin:
    case = json.loads(line)
    print(json.dumps({
        "verifier": verifier(case),
        "receiver": receiver(case),
        "signed": Signature.sign(case["body"], case["secret"]).to_header(),
    }))
