"""What gateway and core offer, as OpenAPI 3.1 documents: a file of operations for each subject, of which each says at
whom it is.
"""
