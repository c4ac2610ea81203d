"""Help for tests of guilds, engines and backends; public, for users too."""
