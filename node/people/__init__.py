"""Who works here: organizations, staff, qualifications, roles, accounts and sessions.

Owns what is written of them, who may write it, and how somebody signs in. Promises that a role is
held only while its assignment stands, that nobody gives a role that he lacks or manages beyond his
division, that a password and a second factor are nowhere in clear, and that who signs out, is
disabled or loses his last role is out at once. Never sees a resident's record.
"""

__all__: list[str] = []
