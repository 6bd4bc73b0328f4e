"""Docker hosts, base images and Compose for the tests, on a machine that has and reaches none of them."""
