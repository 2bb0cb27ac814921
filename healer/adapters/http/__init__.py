"""Everything outside is spoken to over HTTP here, bounded in size and time; and the server that the daemon runs in."""
