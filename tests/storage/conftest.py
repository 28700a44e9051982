from tests.servers import object_store_url, s3_server

__all__ = ["object_store_url", "s3_server"]
