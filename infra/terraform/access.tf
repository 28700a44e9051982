# Who may do what stands in policies/*.json; here they are attached to somebody.
#
# Listing is limited to a prefix where one is asked for (`IfExists`): S3 answers 404 for an object
# that is not there only to those who may list, and a reader that waits for a manifest needs that.

locals {
  root = var.prefix == "" ? "" : "${var.prefix}/"
  names = {
    bucket    = aws_s3_bucket.store.arn
    root      = local.root
    topic     = aws_sns_topic.publications.arn
    consumers = var.consumer_principals
    publisher = aws_iam_role.publisher.arn
  }
}

data "aws_iam_policy_document" "bucket" {
  source_policy_documents = concat(
    [templatefile("${path.module}/policies/bucket.json", local.names)],
    length(var.consumer_principals) == 0 ? [] : [
      templatefile("${path.module}/policies/bucket-consumers.json", local.names)
    ],
  )
}

# Who takes a role: principals by their ARN, and service accounts of a cluster by their token.

locals {
  trusted = {
    publisher = {
      principals = var.publisher_principals
      subjects   = var.kubernetes == null ? [] : var.kubernetes.publishers
    }
    retention = {
      principals = var.retention_principals
      subjects   = var.kubernetes == null ? [] : var.kubernetes.retention
    }
  }
}

data "aws_iam_policy_document" "trust" {
  for_each = local.trusted

  dynamic "statement" {
    for_each = length(each.value.principals) == 0 ? [] : [each.value.principals]

    content {
      actions = ["sts:AssumeRole"]

      principals {
        type        = "AWS"
        identifiers = statement.value
      }
    }
  }

  dynamic "statement" {
    for_each = length(each.value.subjects) == 0 ? [] : [each.value.subjects]

    content {
      actions = ["sts:AssumeRoleWithWebIdentity"]

      principals {
        type        = "Federated"
        identifiers = [var.kubernetes.provider_arn]
      }

      condition {
        test     = "StringEquals"
        variable = "${var.kubernetes.issuer}:sub"
        values   = statement.value
      }

      condition {
        test     = "StringEquals"
        variable = "${var.kubernetes.issuer}:aud"
        values   = ["sts.amazonaws.com"]
      }
    }
  }
}

# The publisher: what the workers are.

resource "aws_iam_role" "publisher" {
  name                 = "${var.name}-publisher"
  description          = "Writes analyses, forecasts and verification; removes no version of anything."
  assume_role_policy   = data.aws_iam_policy_document.trust["publisher"].json
  max_session_duration = 43200
  tags                 = var.tags

  lifecycle {
    precondition {
      condition     = length(concat(local.trusted.publisher.principals, local.trusted.publisher.subjects)) > 0
      error_message = "Give publisher_principals or kubernetes.publishers: nobody could take the role."
    }
  }
}

resource "aws_iam_role_policy" "publisher" {
  name   = "publish"
  role   = aws_iam_role.publisher.id
  policy = templatefile("${path.module}/policies/publisher.json", local.names)
}

# Retention: the only one that may hide a whole forecast, by the written rule.

resource "aws_iam_role" "retention" {
  count              = length(concat(local.trusted.retention.principals, local.trusted.retention.subjects)) == 0 ? 0 : 1
  name               = "${var.name}-retention"
  description        = "Deletes what the retention rule names; versions stay until the lifecycle takes them."
  assume_role_policy = data.aws_iam_policy_document.trust["retention"].json
  tags               = var.tags
}

resource "aws_iam_role_policy" "retention" {
  count  = length(aws_iam_role.retention)
  name   = "retain"
  role   = aws_iam_role.retention[count.index].id
  policy = templatefile("${path.module}/policies/retention.json", local.names)
}

# Consumers of this account attach this policy; others are named in the bucket's.

resource "aws_iam_policy" "consumer" {
  name        = "${var.name}-consumer"
  description = "Reads published forecasts and verification."
  policy      = templatefile("${path.module}/policies/consumer.json", local.names)
  tags        = var.tags
}
