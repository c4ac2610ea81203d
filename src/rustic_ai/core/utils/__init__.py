"""Import paths that users of this field already write."""
