"""Every row of the table, in the contract's own order."""

from tests.conformance.rows.accept import ACCEPT
from tests.conformance.rows.around import AROUND
from tests.conformance.rows.body import BODY
from tests.conformance.rows.errors import ERRORS
from tests.conformance.rows.images import IMAGES
from tests.conformance.rows.key import KEYS
from tests.conformance.rows.limits import LIMITS
from tests.conformance.rows.order import ORDER
from tests.conformance.rows.scale import SCALES
from tests.conformance.rows.sources import SPELLINGS
from tests.conformance.rows.unreadable import UNREADABLE

ROWS = (
    *KEYS,
    *BODY,
    *UNREADABLE,
    *SCALES,
    *LIMITS,
    *ACCEPT,
    *ERRORS,
    *ORDER,
    *IMAGES,
    *AROUND,
    *SPELLINGS,
)
