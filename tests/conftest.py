"""What every suite may ask for."""

from tests.databases import database, mariadb_database, mariadb_databases, sqlite_database

__all__ = ["database", "mariadb_database", "mariadb_databases", "sqlite_database"]
