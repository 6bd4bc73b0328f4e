"""`just chaos`: load on the real system while its parts are killed, cut off and frozen, and a judge at the end."""
