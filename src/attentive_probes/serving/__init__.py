"""Web service, page, Spaces and exports."""
