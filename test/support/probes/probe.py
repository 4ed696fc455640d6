"""Logs in as asked on standard input, once for each line of JSON with libpq's parameters, and answers each with a line of JSON."""

import json
import sys

import psycopg2


def login(parameters):
    try:
        connection = psycopg2.connect(**parameters)
        try:
            cursor = connection.cursor()
            cursor.execute("SELECT session_user::text WHERE %s = 1", (1,))
            return {"ok": True, "user": cursor.fetchone()[0]}
        finally:
            connection.close()
    except psycopg2.Error as error:
        return {"ok": False, "sqlState": error.pgcode, "message": str(error)}


for line in sys.stdin:
    print(json.dumps(login(json.loads(line))), flush=True)
