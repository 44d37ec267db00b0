"""What a node has imported once it runs; imported once, before nodes are forked.

Modules start no thread and open no file when they are imported. Ray is not among them.
"""

import alembic.command
import alembic.runtime.migration
import duckdb
import pymysql
import sqlalchemy.dialects.mysql.pymysql
import sqlalchemy.dialects.sqlite.pysqlite

import node.app
import node.cli.main
import node.storage.migrations

__all__ = ["alembic", "duckdb", "node", "pymysql", "sqlalchemy"]
