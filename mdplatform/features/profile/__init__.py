"""Volume profiles: of a table (`volume_profile`), as they develop (`developing`), of a whole session (`session`)."""
