# By prefix of the store's layout. Nothing here removes a current object: what a retention rule may
# remove depends on `latest.json` and on verification, which only `mosaic` knows.

resource "aws_s3_bucket_lifecycle_configuration" "store" {
  bucket     = aws_s3_bucket.store.id
  depends_on = [aws_s3_bucket_versioning.store]

  dynamic "rule" {
    for_each = toset(["analyses/v1/", "forecasts/v1/"])

    content {
      id     = "cold-${replace(rule.value, "/", "-")}"
      status = "Enabled"

      filter {
        and {
          prefix                   = "${local.root}${rule.value}"
          object_size_greater_than = 131072
        }
      }

      transition {
        days          = var.infrequent_access_days
        storage_class = "STANDARD_IA"
      }
    }
  }

  rule {
    id     = "hidden-versions"
    status = "Enabled"

    filter {
      prefix = local.root
    }

    noncurrent_version_expiration {
      noncurrent_days = var.hidden_days
    }

    expiration {
      expired_object_delete_marker = true
    }
  }

  rule {
    id     = "broken-uploads"
    status = "Enabled"

    filter {
      prefix = local.root
    }

    abort_incomplete_multipart_upload {
      days_after_initiation = 3
    }
  }

  # What `mosaic doctor` and the flight check left behind when they were killed.
  dynamic "rule" {
    for_each = { doctor = "doctor-", flight-check = "flight-check/" }

    content {
      id     = "remains-of-${rule.key}"
      status = "Enabled"

      filter {
        prefix = "${local.root}${rule.value}"
      }

      expiration {
        days = 2
      }
    }
  }
}
