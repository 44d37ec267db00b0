"""What a node has imported once it runs; imported once, before nodes are forked.

Modules start no thread and open no file when they are imported. Ray is not among them.
"""

import os

# NumPy would start threads, which a fork does not take along.
os.environ["OPENBLAS_NUM_THREADS"] = "1"

import alembic.command
import alembic.runtime.migration
import duckdb
import pymysql
import sqlalchemy.dialects.mysql.pymysql
import sqlalchemy.dialects.sqlite.pysqlite
import typer.main

import node.app
import node.matching.finder
import node.storage.migrations
from node.cli.main import app

__all__ = ["FENHE", "alembic", "duckdb", "node", "pymysql", "sqlalchemy"]

FENHE = typer.main.get_command(app)
"""The command `fenhe`, its tree of commands built."""
