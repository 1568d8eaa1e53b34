"""The commands as a user meets them: what they print, where, and how they exit."""
